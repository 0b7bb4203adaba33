// Package outage asks a server again and again while something happens to it, and
// says for how long nobody answered.
package outage
