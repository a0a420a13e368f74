package main

import (
	"strconv"
	"strings"
)

// span is the bytes [start, start+length) of a file.
type span struct{ start, length int64 }

// parseRange reads a Range header for a file of size bytes. ok is false when the whole file is to be sent: no header, or
// one that RFC 9110 14.2 lets a server ignore (malformed, other units, several ranges). satisfiable is false when the
// range lies behind the end.
func parseRange(header string, size int64) (part span, ok, satisfiable bool) {
	text := strings.TrimPrefix(header, "bytes=")
	first, last, dashed := strings.Cut(strings.TrimSpace(text), "-")
	if len(text) == len(header) || !dashed {
		return span{0, size}, false, true
	}
	if first == "" {
		count, valid := digits(last)
		if !valid {
			return span{0, size}, false, true
		}
		if count == 0 || size == 0 {
			return span{}, true, false
		}
		if count > size {
			count = size
		}
		return span{size - count, count}, true, true
	}
	start, valid := digits(first)
	if !valid {
		return span{0, size}, false, true
	}
	end := size - 1
	if last != "" {
		asked, valid := digits(last)
		if !valid || asked < start {
			return span{0, size}, false, true
		}
		if asked < end {
			end = asked
		}
	}
	if start >= size {
		return span{}, true, false
	}
	return span{start, end - start + 1}, true, true
}

// digits is a decimal number without sign; one beyond 63 bits is as good as the largest.
func digits(text string) (int64, bool) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 1<<63 - 1, true
	}
	return value, true
}
