package skbtrace

// ProgramIDs are the kernel's numbers of the programs that the tracer holds.
func (t *Tracer) ProgramIDs() ([]uint32, error) {
	var out []uint32
	for _, prog := range append(t.hooks(), t.tracepoints()...) {
		info, err := prog.Info()
		if err != nil {
			return nil, err
		}
		id, _ := info.ID()
		out = append(out, uint32(id))
	}
	return out, nil
}

// LinkIDs are the kernel's numbers of what the tracer attached.
func (t *Tracer) LinkIDs() ([]uint32, error) {
	var out []uint32
	for _, l := range t.links {
		info, err := l.Info()
		if err != nil {
			return nil, err
		}
		out = append(out, uint32(info.ID))
	}
	return out, nil
}
