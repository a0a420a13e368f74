module atoll/agent

go 1.19
