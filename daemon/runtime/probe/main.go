// The probe is PID 1 of the runtime's tests: it says what it sees from inside, tries what must be refused, and answers
// in one JSON file in the link directory. Arguments name what to do; the last may be "stay".
package main

import (
	"encoding/json"
	"os"
	"time"
)

const linkDir = "/run/atoll/link"

func main() {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		child(os.Args[2:])
		return
	}
	answers := map[string]any{}
	stay := false
	for _, what := range os.Args[1:] {
		switch what {
		case "look":
			answers["look"] = look()
		case "try":
			answers["try"] = try()
		case "budgets":
			answers["budgets"] = budgets()
		case "memory":
			answers["memory"] = runChild("memory")
		case "pids":
			answers["pids"] = runChild("pids")
		case "stay":
			stay = true
		}
	}
	text, err := json.Marshal(answers)
	if err != nil {
		panic(err)
	}
	if err := os.WriteFile(linkDir+"/answers.part", text, 0o600); err != nil {
		panic(err)
	}
	if err := os.Rename(linkDir+"/answers.part", linkDir+"/answers"); err != nil {
		panic(err)
	}
	for stay {
		time.Sleep(time.Hour)
	}
}
