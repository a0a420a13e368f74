package main

import (
	"archive/tar"
	"bufio"
	"net/http"
	"os"
	"path/filepath"
)

// readArchive sends a tar stream (PAX) of a directory's content, or of one file: names of any bytes, modes, owners,
// times, symlinks and hard links; sockets, named pipes and devices are left out, and so is the content of the kernel's
// own file systems. What vanishes meanwhile is left out. A failure under way cuts the stream before its end mark.
func (f *files) readArchive(w http.ResponseWriter, r *http.Request) error {
	_, path, err := f.target(r)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return cannot("archive", path, err)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return cannot("archive", path, err)
	}
	opened := real
	if !info.IsDir() {
		if !info.Mode().IsRegular() {
			return refuse("VALIDATION_FAILED", "Cannot archive %q: it is neither a directory nor a regular file", path)
		}
		opened = filepath.Dir(real)
	}
	top, err := openDirectory(opened)
	if err != nil {
		return cannot("archive", path, err)
	}
	defer top.close()
	if isKernels(top.file) {
		return refuse("NOT_SUPPORTED", "Cannot archive %q: it belongs to the kernel and has no sizes", path)
	}

	w.Header().Set("content-type", "application/x-tar")
	out := bufio.NewWriterSize(w, transferBytes)
	archive := tar.NewWriter(out)
	packing := &packing{archive: archive, context: r.Context()}
	if info.IsDir() {
		err = packing.directory(top, "", 0)
	} else {
		err = packing.entry(top, filepath.Base(real), filepath.Base(path), 0)
	}
	if err != nil || archive.Close() != nil || out.Flush() != nil {
		cut()
	}
	return nil
}

// writeArchive unpacks a tar stream, also one packed by gzip, into a directory, which is made if missing. Each file
// appears whole; when the stream is cut off or refused, what was complete until then stays. Files, directories, symlinks
// and hard links are taken; everything is owned by root, with the modes and times of the archive but without
// set-user-id and set-group-id. Nothing is written outside the directory, and no symlink in it is followed.
func (f *files) writeArchive(w http.ResponseWriter, r *http.Request) error {
	_, path, err := f.target(r)
	if err != nil {
		return err
	}
	if err := makeDirectory(path, true, nil); err != nil {
		return cannot("unpack into", path, err)
	}
	unpacking, err := f.newUnpacking(path)
	if err != nil {
		return cannot("unpack into", path, err)
	}
	defer unpacking.close()
	if err := unpacking.run(r.Body); err != nil {
		return cannot("unpack into", path, err)
	}
	writeJSON(w, http.StatusOK, struct{}{})
	return nil
}
