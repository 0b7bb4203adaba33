// Package robust holds the acceptance tests of what a lab must never do: change
// the machine's own network, leave something behind after any crash, touch what
// is somebody else's, or get in the way of another lab. The real binary is
// driven and really killed.
package robust
