// Package echo serves the declared ports of pods: HTTP on TCP ports, echo on
// UDP and SCTP ports. All servers of a lab live in one process, each listening
// inside its pod's network namespace, where its socket stays, so that a lab of
// thousands of pods needs no process per pod.
//
// What an idle port costs is one descriptor and one parked goroutine; buffers
// exist only while something is being answered.
//
// HTTP answers say who answered and who was seen asking, as text or, with
// "Accept: application/json", as JSON. Two requests are for measuring:
// "GET /bytes?n=N" returns N bytes, and a body that is sent is read to its end
// and answered with its length and SHA-256.
package echo
