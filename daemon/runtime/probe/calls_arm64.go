package main

const sysClone3 = 435

// refusedCalls: one try for each line of seccomp.ts. The arguments would do something where the call were let through.
var refusedCalls = map[string]rawCall{
	"unshare":           {97, [6]uintptr{0x10000000}},
	"setns":             {268, [6]uintptr{0, 0}},
	"mount":             {40, [6]uintptr{pointer("tmpfs"), pointer("/tmp"), pointer("tmpfs")}},
	"umount2":           {39, [6]uintptr{pointer("/proc/kcore")}},
	"fsopen":            {430, [6]uintptr{pointer("tmpfs")}},
	"fsconfig":          {431, [6]uintptr{0}},
	"fsmount":           {432, [6]uintptr{0}},
	"fspick":            {433, [6]uintptr{^uintptr(99), pointer("/")}},
	"move_mount":        {429, [6]uintptr{0}},
	"open_tree":         {428, [6]uintptr{^uintptr(99), pointer("/"), 1}},
	"open_tree_attr":    {467, [6]uintptr{^uintptr(99), pointer("/"), 1}},
	"mount_setattr":     {442, [6]uintptr{^uintptr(99), pointer("/")}},
	"pivot_root":        {41, [6]uintptr{pointer("/tmp"), pointer("/tmp")}},
	"keyctl":            {219, [6]uintptr{0, ^uintptr(2), 1}},
	"add_key":           {217, [6]uintptr{pointer("user"), pointer("k"), pointer("v"), 1, ^uintptr(2)}},
	"request_key":       {218, [6]uintptr{pointer("user"), pointer("k"), 0, ^uintptr(2)}},
	"userfaultfd":       {282, [6]uintptr{1}},
	"perf_event_open":   {241, [6]uintptr{}},
	"bpf":               {280, [6]uintptr{}},
	"io_uring_setup":    {425, [6]uintptr{1}},
	"io_uring_enter":    {426, [6]uintptr{}},
	"io_uring_register": {427, [6]uintptr{}},
	"open_by_handle_at": {265, [6]uintptr{}},
	"name_to_handle_at": {264, [6]uintptr{^uintptr(99), pointer("/")}},
	"syslog":            {116, [6]uintptr{10}},
}
