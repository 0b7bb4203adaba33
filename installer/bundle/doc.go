// Package bundle puts built components and images into one file, and takes them
// out of it into the cache of a machine that has neither a network nor a Go
// toolchain.
//
// A bundle is a tar, compressed with gzip: bundle.json, which has the sum of every
// file; bundle.sig, if it was signed, the Ed25519 signature (RFC 8032) of the bytes
// of bundle.json; and the files in the order of bundle.json. The same components
// give the same bytes.
package bundle
