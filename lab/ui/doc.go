// Package ui serves a page that shows a running lab: its topology as it
// changes, packets on their way, services as their rules have them, the tables
// that decide, reports of the bench, lessons and drills.
//
// The page is for one person at one machine. It listens on the loopback device
// only; every request must carry a random token, name the server by its own
// address, and come from the server's own pages. What changes the lab is
// refused unless the server was started for it. The page fetches nothing from
// anywhere else. Its front end is in ui/, built into dist/ and embedded.
package ui
