// Package components tests labs whose components are the real ones.
package components
