//go:build race

package main

// The race detector makes everything ten times slower: the large cases are smaller under it.
const raceEnabled = true
