// Package traceview shows a trace: as text for a terminal, as Mermaid, DOT and
// SVG drawings, and as a page that opens offline and steps through the packet's
// way. Pure: a trace in, text out. Whatever a trace does not know is shown as
// unknown, and nothing is shown as observed that is not in the observation.
package traceview
