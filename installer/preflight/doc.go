// Package preflight judges whether machines can become the cluster of a cluster
// file, by what they are and have (slipway/installer/facts). It is pure: it looks at
// no machine, and so judges recorded facts as well.
package preflight
