package main

import (
	"archive/tar"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
)

type moveRequest struct {
	Path    string `json:"path"`
	Session string `json:"session,omitempty"`
	To      string `json:"to"`
}

// move gives a file, symlink or directory another path, as mv(1) does: into `to` when that is a directory, else to
// exactly `to`, in place of the file that is there. The directory to move to must exist. It happens whole or not at all,
// also from one file system to another, where it is a copy with owners, modes, links and times of files, but without
// extended attributes; a tree with sockets, named pipes or devices in it is refused there. A tree that holds a mount point
// is refused.
func (f *files) move(w http.ResponseWriter, r *http.Request) error {
	var request moveRequest
	if err := readRequest(w, r, &request); err != nil {
		return err
	}
	from, err := f.place(request.Path, request.Session)
	if err != nil {
		return err
	}
	to, err := f.place(request.To, request.Session)
	if err != nil {
		return err
	}
	if info, err := os.Stat(to); err == nil && info.IsDir() {
		to = filepath.Join(to, filepath.Base(from))
	}
	if err := f.movePath(from, to); err != nil {
		return cannot("move", from, err)
	}
	moved, err := describePath(to)
	if err != nil {
		return cannot("move", from, err)
	}
	writeJSON(w, http.StatusOK, moved)
	return nil
}

func (f *files) movePath(from, to string) error {
	if from == "/" {
		return refuse("VALIDATION_FAILED", `Cannot move "/": it is the root of the sandbox`)
	}
	var stat syscall.Stat_t
	if err := syscall.Lstat(from, &stat); err != nil {
		return err
	}
	// syscall.Rename, because os.Rename judges some cases by itself.
	err := syscall.Rename(from, to)
	switch {
	case errors.Is(err, syscall.EXDEV):
		return f.moveAcross(from, to)
	case errors.Is(err, syscall.EBUSY):
		if busy := refuseMounts("move", from); busy != nil {
			return busy
		}
		return cannot("move to", to, err)
	case errors.Is(err, syscall.EINVAL):
		return refuse("VALIDATION_FAILED", "Cannot move %q to %q: a directory cannot be moved into itself", from, to)
	case err != nil:
		return cannot("move to", to, err)
	}
	return nil
}

// moveAcross copies to an unfinished name beside the target, takes the source out of sight, puts the copy in place and
// only then removes the source. Until the copy is in place everything can be put back.
func (f *files) moveAcross(from, to string) error {
	if err := refuseMounts("move", from); err != nil {
		return err
	}
	source, err := openDirectory(filepath.Dir(from))
	if err != nil {
		return err
	}
	defer source.close()
	place, err := f.unfinishedPlace(filepath.Dir(to))
	if err != nil {
		return cannot("move to", to, err)
	}
	directoryPath := unfinishedName(place)
	if err := os.Mkdir(directoryPath, 0o700); err != nil {
		return cannot("move to", to, err)
	}
	defer os.RemoveAll(directoryPath)
	name := filepath.Base(from)
	if err := f.copyTree(source, name, directoryPath, filepath.Dir(to)); err != nil {
		return err
	}

	hidden := filepath.Base(unfinishedName(""))
	err = os.Rename(source.at(name), source.at(hidden))
	if errors.Is(err, syscall.EXDEV) {
		hidden = name // an overlay without redirect_dir: a directory of the image cannot be renamed, only removed
	} else if err != nil {
		return err
	}
	if err := syscall.Rename(filepath.Join(directoryPath, name), to); err != nil {
		if failed := os.Rename(source.at(hidden), source.at(name)); failed != nil {
			return refuse("INTERNAL_ERROR", "Cannot move %q to %q: %v; it is now called %q", from, to, err, hidden)
		}
		return cannot("move to", to, err)
	}
	return removeTree(source, hidden, filepath.Join(filepath.Dir(from), hidden))
}

// copyTree copies name in source into the directory at into, by an archive that is never stored. shown is what messages
// call that directory.
func (f *files) copyTree(source directory, name, into, shown string) error {
	unpacking, err := f.newUnpacking(into)
	if err != nil {
		return err
	}
	defer unpacking.close()
	unpacking.keepOwners, unpacking.path = true, shown
	reader, writer := io.Pipe()
	packed := make(chan struct{})
	go func() {
		defer close(packed)
		archive := tar.NewWriter(writer)
		packing := &packing{archive: archive, specials: refuseSpecial}
		err := packing.entry(source, name, name, 0)
		if err == nil {
			err = archive.Close()
		}
		writer.CloseWithError(err) // nil is EOF
	}()
	err = unpacking.run(reader)
	reader.CloseWithError(io.ErrClosedPipe) // ends the packing when unpacking has failed
	<-packed                                // source is the caller's to close
	return err
}

func refuseSpecial(name string, mode uint32) error {
	return refuse("NOT_SUPPORTED", "Cannot move %q to another file system: it is %s", name, kind(mode))
}
