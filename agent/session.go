package main

import "net/http"

type sessions struct{ workspace string }

type sessionRun struct{}

func loadSessions(directory, workspace string) *sessions { return &sessions{workspace} }

func (s *sessions) directory(session string) (string, error) { return s.workspace, nil }

func (r *sessionRun) finish(clean bool) bool { return false }
func (r *sessionRun) abandon()               {}

func (l *launch) prepareSession() error {
	return refuse("NOT_SUPPORTED", "Cannot run in a session: not built yet")
}

func (a *agent) getSessions(w http.ResponseWriter, r *http.Request, _ []string) error {
	return refuse("NOT_SUPPORTED", "Cannot list sessions: not built yet")
}
func (a *agent) getSession(w http.ResponseWriter, r *http.Request, _ []string) error {
	return a.getSessions(w, r, nil)
}
func (a *agent) putSession(w http.ResponseWriter, r *http.Request, _ []string) error {
	return a.getSessions(w, r, nil)
}
func (a *agent) patchSession(w http.ResponseWriter, r *http.Request, _ []string) error {
	return a.getSessions(w, r, nil)
}
func (a *agent) deleteSession(w http.ResponseWriter, r *http.Request, _ []string) error {
	return a.getSessions(w, r, nil)
}
