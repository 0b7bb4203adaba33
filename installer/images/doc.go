// Package images makes the few container images that a lab needs from programs
// that this machine has: no registry, no network, nothing pulled. Archives are in
// the OCI image layout (image-spec v1.1, image-layout.md), which `ctr images import`
// reads, and the same programs give the same bytes, so that an archive's sum says
// what is in it.
//
// Images that people's manifests name and that nobody can pull are stood in for by
// the echo server: by name in an archive ([StandIns]), or whatever the name by a
// registry that answers with it ([Registry]).
package images
