// Package trace says which way a packet takes, and why. It walks a packet
// through the collected state of every namespace on its way ([Predict]), and
// compares that with what was observed ([Compare]). It is pure: the same code
// serves a running lab, a recorded trace and a real host.
//
// What cannot be evaluated is reported as unknown with the text of the rule or
// route in question, never guessed.
package trace
