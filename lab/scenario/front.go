package scenario

import (
	"errors"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// frontMatter is what stands before the first part of a file, as YAML.
type frontMatter struct {
	Title     Text     `yaml:"title"`
	Kind      string   `yaml:"kind"`
	Level     int      `yaml:"level"`
	Minutes   int      `yaml:"minutes"`
	Languages []string `yaml:"languages"`
	Order     int      `yaml:"order"`
}

// front reads the front matter. Mode and components are the cluster file's.
func (r *reader) front(data []byte) {
	f := frontMatter{Languages: Languages}
	err := yaml.UnmarshalWithOptions(data, &f, yaml.DisallowUnknownField())
	var at yaml.Error
	switch {
	case err == nil:
	case errors.As(err, &at) && at.GetToken() != nil:
		p := at.GetToken().Position
		r.complain(p.Line, p.Column, "front", "%s", at.GetMessage())
		return
	default:
		r.complain(1, 1, "front", "%v", err)
		return
	}
	line := func(key string) int { // the line of a key, or the first
		return 1 + max(0, slices.IndexFunc(strings.Split(string(data), "\n"), func(l string) bool { return strings.HasPrefix(l, key+":") }))
	}
	if f.Kind != Lesson && f.Kind != Drill {
		r.complain(line("kind"), 1, "front", "kind is %s or %s, not %q", Lesson, Drill, f.Kind)
	}
	if f.Level < 1 || f.Level > 3 {
		r.complain(line("level"), 1, "front", "level is 1, 2 or 3, not %d", f.Level)
	}
	if f.Order < 0 || f.Order > 0 && f.Kind != Lesson {
		r.complain(line("order"), 1, "front", "order is the place of a lesson among the others, from 1")
	}
	if f.Minutes < 1 {
		r.complain(line("minutes"), 1, "front", "minutes is what a student needs, at least 1")
	}
	for _, l := range f.Languages {
		switch {
		case !slices.Contains(Languages, l):
			r.complain(line("languages"), 1, "front", "language %q is not one of %s", l, strings.Join(Languages, ", "))
		case f.Title[l] == "":
			r.complain(line("title"), 1, "front", "there is no title in %s", l)
		}
	}
	if !slices.Contains(f.Languages, English) {
		r.complain(line("languages"), 1, "front", "English is the language that is there when another is not")
	}
	s := r.s
	s.Titles, s.Kind, s.Level, s.Minutes, s.Languages = f.Title, f.Kind, f.Level, f.Minutes, f.Languages
	s.Order = f.Order
}
