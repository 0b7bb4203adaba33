// Echo is the server in the lab's own containers: HTTP on TCP ports, echo on the
// same UDP ports, and the same answers that the pods of a lab without real
// components give (lab/echo). Run as
//
//	echo [PORT | ADDRESS:PORT | -flag=PORT]…
//
// it serves every port that an argument ends in, those of PORT in the environment
// (separated by commas), and where there are none, or where it stands in for
// another image, 80 and 8080. `echo -slipway-probe` is its client.
package main

import (
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usualPorts are those of the images that people use in examples.
var usualPorts = []int{80, 8080}

// standInEnv is set in images that are called as one that cannot be had.
const standInEnv = "SLIPWAY_STAND_IN"

func main() {
	log.SetFlags(0)
	log.SetPrefix("echo: ")
	if len(os.Args) == 2 && os.Args[1] == probeArg {
		if err := probe(os.Stdin, os.Stdout); err != nil {
			log.Fatal(err)
		}
		return
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM) // pid 1 has no default for them
	s := &server{who: identify(), standIn: os.Getenv(standInEnv)}
	if err := s.listen(ports(os.Args[1:], os.Getenv("PORT"), s.standIn != "")); err != nil {
		log.Fatal(err)
	}
	<-stop
}

// atEnd is a port at the end of an argument: "8080", ":8080", "-listen=0.0.0.0:8080".
var atEnd = regexp.MustCompile(`(?:^|[:=])(\d{1,5})$`)

// ports are those to serve, each once, in order.
func ports(args []string, env string, usual bool) []int {
	var out []int
	for _, s := range append(args, strings.Split(env, ",")...) {
		m := atEnd.FindStringSubmatch(strings.TrimSpace(s))
		if m == nil {
			continue
		}
		if n, err := strconv.Atoi(m[1]); err == nil && n > 0 && n < 1<<16 {
			out = append(out, n)
		}
	}
	if usual || len(out) == 0 {
		out = append(out, usualPorts...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// server answers for one container.
type server struct {
	who     identity
	standIn string // the image it stands in for
}

// Timeouts of HTTP connections.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 60 * time.Second
)

// listen serves what can be served: a container that may not open port 80 still
// has 8080. An error says that no port could be opened.
func (s *server) listen(ports []int) error {
	web := &http.Server{Handler: s, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout}
	var errs []error
	for _, port := range ports {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			log.Print(err)
			errs = append(errs, err)
			continue
		}
		go func() { log.Print(web.Serve(l)) }()
		if err := serveUDP(port); err != nil {
			log.Print(err)
		}
	}
	if len(errs) == len(ports) {
		return errors.Join(errs...)
	}
	return nil
}
