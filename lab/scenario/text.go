package scenario

import (
	"os"
	"slices"
	"strings"
)

// The languages that a scenario is written in.
const (
	English = "en"
	Chinese = "zh"
)

// Languages are the values of --lang.
var Languages = []string{English, Chinese}

// Text is something to read, by language.
type Text map[string]string

// In returns the text in a language, or in English where there is none.
func (t Text) In(lang string) string {
	if s, ok := t[lang]; ok && s != "" {
		return s
	}
	return t[English]
}

// LocaleLanguage is the language that the environment asks for (locale(7): LC_ALL
// before LC_MESSAGES before LANG); English unless it is Chinese.
func LocaleLanguage() string {
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := os.Getenv(name); v != "" {
			lang, _, _ := strings.Cut(v, "_")
			lang, _, _ = strings.Cut(lang, ".")
			if slices.Contains(Languages, lang) {
				return lang
			}
			return English
		}
	}
	return English
}

// between parts a line's languages: "# English | 中文".
const between = " | "

// bilingual reads a comment's lines, each "English | 中文" or of one language for both.
func bilingual(lines []string) Text {
	var en, zh []string
	for _, l := range lines {
		a, b, ok := strings.Cut(l, between)
		if !ok {
			b = a
		}
		en, zh = append(en, strings.TrimSpace(a)), append(zh, strings.TrimSpace(b))
	}
	return Text{English: strings.Join(en, " "), Chinese: strings.Join(zh, "")}
}
