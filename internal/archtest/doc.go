// Package archtest holds the rules of the project's structure as tests.
package archtest
