package main

import (
	"net/http"
	"sort"
)

func (s *session) describe() agentSession {
	_, functions := findShell()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return agentSession{
		ID: s.id, Cwd: s.cwd, CreatedAtMs: s.createdAt.UnixMilli(), CommandTimeoutMs: s.commandTimeoutMs, Functions: functions,
	}
}

func (a *agent) getSessions(w http.ResponseWriter, _ *http.Request, _ []string) error {
	if _, err := a.sessions.find(defaultSession); err != nil {
		return err
	}
	a.sessions.mutex.Lock()
	all := make([]*session, 0, len(a.sessions.byID))
	for _, one := range a.sessions.byID {
		all = append(all, one)
	}
	a.sessions.mutex.Unlock()
	list := sessionList{Sessions: []agentSession{}}
	for _, one := range all {
		list.Sessions = append(list.Sessions, one.describe())
	}
	sort.Slice(list.Sessions, func(i, j int) bool { return list.Sessions[i].ID < list.Sessions[j].ID })
	writeJSON(w, http.StatusOK, list)
	return nil
}

func (a *agent) getSession(w http.ResponseWriter, _ *http.Request, names []string) error {
	found, err := a.sessions.find(names[0])
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, found.describe())
	return nil
}

func (a *agent) putSession(w http.ResponseWriter, r *http.Request, names []string) error {
	var spec sessionSpec
	if err := readRequest(w, r, &spec); err != nil {
		return err
	}
	created, err := a.sessions.create(names[0], spec)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, created.describe())
	return nil
}

func (a *agent) patchSession(w http.ResponseWriter, r *http.Request, names []string) error {
	var patch sessionPatch
	if err := readRequest(w, r, &patch); err != nil {
		return err
	}
	found, err := a.sessions.find(names[0])
	if err != nil {
		return err
	}
	changes, err := environmentChanges(patch.Env)
	if err != nil {
		return err
	}
	a.sessions.merge(found, changes, nil)
	writeJSON(w, http.StatusOK, found.describe())
	return nil
}

func (a *agent) deleteSession(w http.ResponseWriter, _ *http.Request, names []string) error {
	if err := a.sessions.remove(names[0]); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct{}{})
	return nil
}
