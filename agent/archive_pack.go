package main

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

// packing writes trees into a tar stream.
type packing struct {
	archive *tar.Writer
	// Ends the packing early; nil never does.
	context context.Context
	// Called with a socket, named pipe or device; nil leaves it out.
	specials func(name string, mode uint32) error
	linked   map[inode]string
}

type inode struct{ device, number uint64 }

func (p *packing) directory(d directory, prefix string, depth int) error {
	if depth == deepest {
		return tooDeep("archive", prefix)
	}
	return d.each(func(name string) error {
		return p.entry(d, name, path.Join(prefix, name), depth)
	})
}

// entry packs name in d, called `as` in the archive, with all that is in it.
func (p *packing) entry(d directory, name, as string, depth int) error {
	if p.context != nil && p.context.Err() != nil {
		return p.context.Err()
	}
	stat, err := d.lstat(name)
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return cannot("archive", as, err)
	}
	switch stat.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		return p.file(d, name, as)
	case syscall.S_IFDIR:
		return p.tree(d, name, as, depth)
	case syscall.S_IFLNK:
		return p.symlink(d, name, as, &stat)
	}
	if p.specials != nil {
		return p.specials(as, stat.Mode)
	}
	return nil
}

func (p *packing) file(d directory, name, as string) error {
	file, err := os.OpenFile(d.at(name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) {
		return nil // gone, or something else by now
	}
	if err != nil {
		return cannot("archive", as, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return cannot("archive", as, err)
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	stat := info.Sys().(*syscall.Stat_t)
	header := headerOf(as, stat)
	if first, ok := p.firstLink(as, stat); ok {
		header.Typeflag, header.Linkname = tar.TypeLink, first
		return p.archive.WriteHeader(header)
	}
	header.Typeflag, header.Size = tar.TypeReg, stat.Size
	if err := p.archive.WriteHeader(header); err != nil {
		return err
	}
	if stat.Size == 0 {
		return nil
	}
	// A file that grows ends at the size told; one that shrinks is an error: the archive would not be what it says.
	if err := copyAll(p.archive, io.LimitReader(file, stat.Size)); err != nil {
		return err
	}
	if err := p.archive.Flush(); err != nil {
		return refuse("RESOURCE_BUSY", "Cannot archive %q: it became shorter meanwhile", as)
	}
	return nil
}

// firstLink gives the name under which the same file is in the archive already.
func (p *packing) firstLink(as string, stat *syscall.Stat_t) (string, bool) {
	if stat.Nlink < 2 {
		return "", false
	}
	key := inode{uint64(stat.Dev), stat.Ino}
	if first, ok := p.linked[key]; ok {
		return first, true
	}
	if p.linked == nil {
		p.linked = map[inode]string{}
	}
	p.linked[key] = as
	return "", false
}

func (p *packing) tree(d directory, name, as string, depth int) error {
	child, err := d.open(name)
	if isUnreadable(err) && !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.EPERM) {
		return nil // gone, or something else by now
	}
	if err != nil {
		return cannot("archive", as, err)
	}
	defer child.close()
	info, err := child.file.Stat()
	if err != nil {
		return cannot("archive", as, err)
	}
	header := headerOf(as+"/", info.Sys().(*syscall.Stat_t))
	header.Typeflag = tar.TypeDir
	if err := p.archive.WriteHeader(header); err != nil {
		return err
	}
	if child.device() != d.device() && isKernels(child.file) {
		return nil
	}
	return p.directory(child, as, depth+1)
}

func (p *packing) symlink(d directory, name, as string, stat *syscall.Stat_t) error {
	target, err := os.Readlink(d.at(name))
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EINVAL) {
		return nil
	}
	if err != nil {
		return cannot("archive", as, err)
	}
	header := headerOf(as, stat)
	header.Typeflag, header.Linkname = tar.TypeSymlink, target
	if !utf8.ValidString(target) {
		header.PAXRecords = binaryNames
	}
	return p.archive.WriteHeader(header)
}

// POSIX pax: the names of this entry are bytes, not UTF-8.
var binaryNames = map[string]string{"hdrcharset": "BINARY"}

func headerOf(name string, stat *syscall.Stat_t) *tar.Header {
	header := &tar.Header{
		Name:    name,
		Mode:    int64(stat.Mode & 0o7777),
		Uid:     int(stat.Uid),
		Gid:     int(stat.Gid),
		ModTime: modifiedAt(stat),
		Format:  tar.FormatPAX,
	}
	if !utf8.ValidString(name) || strings.ContainsRune(name, utf8.RuneError) {
		header.PAXRecords = binaryNames
	}
	if header.ModTime.Before(time.Unix(0, 0)) {
		header.ModTime = time.Unix(0, 0)
	}
	return header
}
