package nft

import (
	"encoding/json"
	"fmt"
	"strings"
)

// spellRule spells statements one after the other.
func spellRule(list []json.RawMessage) string {
	out := make([]string, 0, len(list))
	for _, r := range list {
		s, ok := spellStatement(r)
		if !ok {
			s = string(r)
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func spellStatement(r json.RawMessage) (string, bool) {
	var m map[string]any
	if json.Unmarshal(r, &m) != nil || len(m) != 1 {
		return "", false
	}
	for kind, v := range m {
		args, _ := v.(map[string]any)
		switch kind {
		case "match":
			return spellMatch(args)
		case "vmap":
			return spellVMap(args)
		case "mangle":
			return spellMangle(args)
		case "dnat", "snat":
			return spellNAT(kind, args)
		case "masquerade", "redirect":
			return spellOwn(kind, args)
		case "reject":
			return spellReject(args)
		case "set":
			return spellUpdate(args)
		case "counter":
			return "counter", true
		case "accept", "drop", "return", "continue", "jump", "goto":
			return verdictOr(m), true
		}
	}
	return "", false
}

// operators are the arithmetic ones, as kube-proxy writes them.
var operators = map[string]string{"&": "and", "|": "or", "^": "xor"}

// expression spells what a rule asks a packet for.
func expression(v any) (string, bool) {
	m, ok := v.(map[string]any)
	if !ok || len(m) != 1 {
		return "", false
	}
	for kind, x := range m {
		args, _ := x.(map[string]any)
		switch kind {
		case "payload":
			p, ok1 := args["protocol"].(string)
			f, ok2 := args["field"].(string)
			return p + " " + f, ok1 && ok2 && len(args) == 2
		case "meta":
			key, ok := args["key"].(string)
			if key == "mark" {
				return "mark", ok
			}
			return "meta " + key, ok && len(args) == 1
		case "ct":
			key, ok := args["key"].(string)
			return "ct " + key, ok && len(args) == 1
		case "fib":
			return spellFIB(args)
		case "numgen":
			mode, _ := args["mode"].(string)
			offset, _ := args["offset"].(float64)
			return fmt.Sprintf("numgen %s mod %s", mode, value(args["mod"])), mode != "" && offset == 0
		case "concat":
			return spellConcat(x)
		case "&", "|", "^":
			pair, ok := x.([]any)
			if !ok || len(pair) != 2 {
				return "", false
			}
			left, ok := expression(pair[0])
			n, isNumber := pair[1].(float64)
			return fmt.Sprintf("%s %s %s", left, operators[kind], number(n)), ok && isNumber
		}
	}
	return "", false
}

// number spells a mark as kube-proxy does.
func number(n float64) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%#08x", uint32(n))
}

func spellConcat(v any) (string, bool) {
	list, ok := v.([]any)
	out := make([]string, len(list))
	for i, x := range list {
		var known bool
		out[i], known = expression(x)
		ok = ok && known
	}
	return strings.Join(out, " . "), ok
}

func spellFIB(args map[string]any) (string, bool) {
	result, _ := args["result"].(string)
	flags, ok := args["flags"].([]any)
	if one, is := args["flags"].(string); is {
		flags, ok = []any{one}, true
	}
	if !ok || len(flags) != 1 {
		return "", false
	}
	return fmt.Sprintf("fib %v %s", flags[0], result), result != ""
}

func spellMatch(args map[string]any) (string, bool) {
	left, ok := expression(args["left"])
	op, _ := args["op"].(string)
	right := value(args["right"])
	if n, is := args["right"].(float64); is && strings.HasPrefix(left, "mark") {
		right = number(n)
	}
	switch {
	case left == "ct status" && op != "in": // of all bits, not of one
		return "", false
	case op == "==", op == "in":
		return left + " " + right, ok
	case op == "!=":
		return left + " != " + right, ok
	default:
		return "", false
	}
}

// spellPairs spells the data of a map: a name, or its pairs.
func spellPairs(v any) (string, bool) {
	if name, ok := v.(string); ok {
		return name, true
	}
	list, ok := member(v, "set").([]any)
	if !ok {
		return "", false
	}
	out := make([]string, len(list))
	for i, x := range list {
		pair, ok := x.([]any)
		if !ok || len(pair) != 2 {
			return "", false
		}
		out[i] = value(pair[0]) + " : " + verdictOr(pair[1])
	}
	return "{ " + strings.Join(out, " , ") + " }", true
}

func spellVMap(args map[string]any) (string, bool) {
	key, ok1 := expression(args["key"])
	data, ok2 := spellPairs(args["data"])
	return key + " vmap " + data, ok1 && ok2
}

func spellMangle(args map[string]any) (string, bool) {
	key, ok := expression(args["key"])
	if n, is := args["value"].(float64); is {
		return key + " set " + number(n), ok && key == "mark"
	}
	to, known := expression(args["value"])
	return key + " set " + to, ok && known && key == "mark"
}

func spellNAT(kind string, args map[string]any) (string, bool) {
	flags, ok := flagWords(args["flags"])
	if m := member(args["addr"], "map"); m != nil {
		inner, _ := m.(map[string]any)
		key, ok1 := expression(inner["key"])
		data, ok2 := spellPairs(inner["data"])
		what := " ip "
		if strings.Contains(data, " . ") {
			what = " ip addr . port "
		}
		return kind + what + "to " + key + " map " + data + flags, ok && ok1 && ok2 && args["family"] != "ip6"
	}
	to := ""
	if a, is := args["addr"]; is {
		to = value(a)
	}
	if p, is := args["port"]; is {
		to += ":" + value(p)
	}
	return kind + " to " + to + flags, ok && !strings.ContainsAny(to, "{@")
}

// flagWords spells the flags of a translation, with a blank before each.
func flagWords(v any) (string, bool) {
	switch x := v.(type) {
	case nil:
		return "", true
	case string:
		return " " + x, true
	case []any:
		return " " + join(x, ",", value), true
	default:
		return "", false
	}
}

func spellOwn(kind string, args map[string]any) (string, bool) {
	flags, ok := flagWords(args["flags"])
	out := kind
	if p, is := args["port"]; is {
		out += " to :" + value(p)
	}
	return out + flags, ok
}

// spellReject leaves out what goes without saying: in family ip that is
// port-unreachable.
func spellReject(args map[string]any) (string, bool) {
	kind, _ := args["type"].(string)
	with, _ := args["expr"].(string)
	switch {
	case len(args) == 0, kind == "icmp" && with == "port-unreachable":
		return "reject", true
	case kind == "tcp reset":
		return "reject with tcp reset", true
	case with != "":
		return "reject with " + kind + " " + with, true
	default:
		return "", false
	}
}

func spellUpdate(args map[string]any) (string, bool) {
	op, _ := args["op"].(string)
	set, _ := args["set"].(string)
	elem, ok := expression(args["elem"])
	return fmt.Sprintf("%s %s { %s }", op, set, elem), ok && op != "" && set != "" && len(args) == 3
}
