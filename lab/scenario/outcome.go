package scenario

import "fmt"

// outcome is what the last command wanted and got, in all languages.
type outcome struct{ want, wantNot, got Text }

// phrases of checks, by language.
var (
	wantReach        = Text{English: "%s reaches %s (%s)", Chinese: "%s 能访问 %s（%s）"}
	wantNoReach      = Text{English: "%s does not reach %s (%s)", Chinese: "%s 不能访问 %s（%s）"}
	wantTrace        = Text{English: "a packet from %s to %s is %s", Chinese: "从 %s 发往 %s 的数据包：%s"}
	wantNoTrace      = Text{English: "a packet from %s to %s is not %s", Chinese: "从 %s 发往 %s 的数据包不是：%s"}
	wantMatch        = Text{English: "an answer that matches %s", Chinese: "结果匹配 %s"}
	wantNoMatch      = Text{English: "no answer that matches %s", Chinese: "结果不匹配 %s"}
	wantCommand      = Text{English: "slipway %s succeeds", Chinese: "slipway %s 执行成功"}
	wantCommandFails = Text{English: "slipway %s fails", Chinese: "slipway %s 执行失败"}
	gotSome          = Text{English: "%d of %d answered; the others: %s", Chinese: "%[2]d 次中 %[1]d 次有应答；其余：%[3]s"}
)

// phrase fills a text in.
func phrase(t Text, args ...any) Text {
	out := Text{}
	for lang, s := range t {
		out[lang] = fmt.Sprintf(s, args...)
	}
	return out
}

// same is a text that is the same in all languages.
func same(s string) Text { return Text{English: s} }

// failures are what becomes of packets, in Chinese.
var failures = map[string]string{
	"refused": "被拒绝（refused）", "reset": "连接被重置（reset）", "host unreachable": "主机不可达（host unreachable）",
	"network unreachable": "网络不可达（network unreachable）", "no answer": "没有应答（no answer）", "message too long": "报文过长（message too long）",
}

// gotFailure names a failure.
func gotFailure(s string) Text {
	zh := failures[s]
	if zh == "" {
		zh = s
	}
	return Text{English: s, Chinese: zh}
}
