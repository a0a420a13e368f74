package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
)

type mkdirRequest struct {
	Path      string  `json:"path"`
	Session   string  `json:"session,omitempty"`
	Recursive bool    `json:"recursive"`
	Mode      *uint32 `json:"mode,omitempty"`
}

// mkdir makes a directory; with recursive also its parents, and one that is there already is fine and stays as it is.
// mode (default 0o755) is that of the last directory, exactly; parents that are made get 0o755.
func (f *files) mkdir(w http.ResponseWriter, r *http.Request) error {
	var request mkdirRequest
	if err := readRequest(w, r, &request); err != nil {
		return err
	}
	if err := checkMode(request.Mode); err != nil {
		return err
	}
	path, err := f.place(request.Path, request.Session)
	if err != nil {
		return err
	}
	if err := makeDirectory(path, request.Recursive, request.Mode); err != nil {
		return cannot("make the directory", path, err)
	}
	made, err := describeTarget(path)
	if err != nil {
		return cannot("make the directory", path, err)
	}
	writeJSON(w, http.StatusOK, made)
	return nil
}

func makeDirectory(path string, recursive bool, mode *uint32) error {
	if recursive {
		if err := makeParents(path); err != nil {
			return err
		}
	}
	err := syscall.Mkdir(path, 0o755)
	if errors.Is(err, syscall.EEXIST) && recursive {
		if info, failed := os.Stat(path); failed == nil && info.IsDir() {
			return nil
		}
	}
	if err == nil && mode != nil {
		return syscall.Chmod(path, *mode) // mkdir itself would apply the umask
	}
	return err
}

// makeParents makes the directories that path needs above it.
func makeParents(path string) error {
	parent := filepath.Dir(path)
	nearest, _, err := nearestDirectory(parent)
	if err != nil || nearest == parent {
		return err
	}
	err = os.MkdirAll(parent, 0o755)
	if errors.Is(err, syscall.EEXIST) {
		return refuse("FILE_NOT_FOUND", "Cannot make the directory %q: a symlink on the way leads nowhere", parent)
	}
	return err
}

type removeRequest struct {
	Path      string `json:"path"`
	Session   string `json:"session,omitempty"`
	Recursive bool   `json:"recursive"`
}

// remove removes a file or symlink (never what it leads to), and with recursive a directory with all that is in it. A
// tree that holds a mount point is refused before anything is removed.
func (f *files) remove(w http.ResponseWriter, r *http.Request) error {
	var request removeRequest
	if err := readRequest(w, r, &request); err != nil {
		return err
	}
	path, err := f.place(request.Path, request.Session)
	if err != nil {
		return err
	}
	if err := removePath(path, request.Recursive); err != nil {
		return cannot("remove", path, err)
	}
	writeJSON(w, http.StatusOK, struct{}{})
	return nil
}

func removePath(path string, recursive bool) error {
	if path == "/" {
		return refuse("VALIDATION_FAILED", `Cannot remove "/": it is the root of the sandbox; destroy the sandbox instead`)
	}
	var stat syscall.Stat_t
	if err := syscall.Lstat(path, &stat); err != nil {
		return err
	}
	if stat.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return syscall.Unlink(path)
	}
	if !recursive {
		return refuse("IS_DIRECTORY", "Cannot remove %q: it is a directory; ask for a recursive removal", path)
	}
	if err := refuseMounts("remove", path); err != nil {
		return err
	}
	parent, err := openDirectory(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer parent.close()
	return removeTree(parent, filepath.Base(path), path)
}

func refuseMounts(verb, path string) error {
	point, err := mountWithin(path)
	if err != nil {
		return err
	}
	if point != "" {
		return refuse("RESOURCE_BUSY", "Cannot %s %q: %q is a mount point", verb, path, point)
	}
	return nil
}
