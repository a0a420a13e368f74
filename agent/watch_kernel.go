package main

// kernelWatch is a directory that the kernel watches for us, on behalf of these.
type kernelWatch struct {
	wd    int32
	nodes []*node
	// anchors are the watches below this directory, with the name that leads to each.
	anchors []anchor
}

// hold has the kernel watch a directory. Who calls it then attaches something to it, or releases it.
func (all *watches) hold(directory int, bits uint32) (*kernelWatch, error) {
	wd, err := all.instance.add(directory, bits)
	if err != nil {
		return nil, err
	}
	at := all.kernel[wd]
	if at == nil {
		at = &kernelWatch{wd: wd}
		all.kernel[wd] = at
	}
	return at, nil
}

// release lets the directory go when nobody needs it any more.
func (all *watches) release(at *kernelWatch) {
	if len(at.nodes) == 0 && len(at.anchors) == 0 && all.kernel[at.wd] == at {
		delete(all.kernel, at.wd)
		all.instance.remove(at.wd)
	}
}

func (at *kernelWatch) isIn(w *watch) bool {
	for _, one := range at.nodes {
		if one.watch == w {
			return true
		}
	}
	return false
}
