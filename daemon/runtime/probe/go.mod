module atoll.dev/runtime-probe

go 1.19
