package traceview
import ("slipway/datapath/trace";"io")
func Mermaid(w io.Writer, t *trace.Trace) error {return nil}
func DOT(w io.Writer, t *trace.Trace, s Subtitles) error {return nil}
