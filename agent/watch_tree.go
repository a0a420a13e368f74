package main

// node is a directory in a watch's picture of its tree. The picture is what the events that were read so far tell;
// reality may be ahead of it.
type node struct {
	watch    *watch
	parent   *node // nil of the root
	name     string
	children map[string]*node // those that are watched
	kernel   *kernelWatch     // nil once the kernel has let the directory go
	dead     bool

	// told are the names that a scan told which may be told again by events before toldUntil in the queue.
	told      map[string]struct{}
	toldUntil int64
}

func (n *node) attach(at *kernelWatch) {
	n.kernel = at
	at.nodes = append(at.nodes, n)
}

// detach forgets the node and everything below it.
func (n *node) detach() {
	n.dead = true
	for _, child := range n.children {
		child.detach()
	}
	if n.parent != nil && n.parent.children[n.name] == n {
		delete(n.parent.children, n.name)
	}
	if at := n.kernel; at != nil {
		for i, one := range at.nodes {
			if one == n {
				at.nodes = append(at.nodes[:i], at.nodes[i+1:]...)
				break
			}
		}
		n.watch.owner.release(at)
	}
}

func (n *node) put(name string, child *node) {
	if former := n.children[name]; former != nil && former != child {
		former.detach()
	}
	if n.children == nil {
		n.children = map[string]*node{}
	}
	child.parent, child.name = n, name
	n.children[name] = child
}

// relative is the path of a name in this directory from the root on; "" gives the directory's own.
func (n *node) relative(name string) string {
	length, depth := len(name), 0
	for at := n; at.parent != nil; at = at.parent {
		length += len(at.name) + 1
		depth++
	}
	if depth == 0 {
		return name
	}
	path := make([]byte, length)
	end := length - len(name)
	copy(path[end:], name)
	for at := n; at.parent != nil; at = at.parent {
		end--
		path[end] = '/'
		end -= len(at.name)
		copy(path[end:], at.name)
	}
	if name == "" {
		path = path[:length-1]
	}
	return string(path)
}

func (n *node) depth() int {
	depth := 0
	for at := n; at.parent != nil; at = at.parent {
		depth++
	}
	return depth
}

// isBelow: where we came to look too late, a picture may show a directory moved into itself.
func (n *node) isBelow(other *node) bool {
	for at := n; at != nil; at = at.parent {
		if at == other {
			return true
		}
	}
	return false
}
