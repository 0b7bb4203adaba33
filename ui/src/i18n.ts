// Labels in English and Chinese. English is the key; what has no translation is
// shown in English, as is what the kernel and Slipway itself say.

const zh: Record<string, string> = {
  Map: "拓扑", Packet: "数据包", Services: "服务", Tables: "转发表", Bench: "测速", Lessons: "课程",
  "live topology": "实时拓扑", up: "运行中", partial: "变更中", "daemon-down": "守护进程停止", gone: "已删除", "no connection": "连接中断",
  nodes: "节点", pods: "Pod", services: "服务", racks: "机架", node: "节点", pod: "Pod", service: "服务", router: "路由器", rack: "机架",
  "looks only": "只读", "may change": "可修改", "find…": "查找…", help: "帮助", keyboard: "键盘", theme: "明暗", "text size": "字号", language: "语言",
  "pod network": "Pod 网络", "service network": "服务网络", mode: "模式", address: "地址", "pod range": "Pod 网段", roles: "角色", ports: "端口",
  "on node": "所在节点", endpoints: "端点", type: "类型", "cluster IP": "集群 IP", "node port": "节点端口", proxy: "代理", MTU: "MTU", shape: "限速",
  "all is well": "一切正常", "something is wrong": "有故障", legend: "图例", devices: "设备", routes: "路由", neighbours: "邻居（ARP）", fdb: "FDB（转发数据库）", leases: "租约",
  "tables": "转发表", "trace from here": "从这里发包", "trace to here": "发包到这里", "probability tree": "概率树", "control plane": "控制平面", worker: "工作节点",
  from: "从", to: "到", "send and watch": "发送并观察", "predict only": "仅预测", protocol: "协议", "tracing…": "跟踪中…",
  predicted: "预测", observed: "观察", reply: "回程", request: "去程", play: "播放", pause: "暂停", "first hop": "第一跳", "last hop": "最后一跳", back: "后退", forward: "前进",
  "headers as it leaves this hop": "离开这一跳时的报文头", "taken off": "已剥去", "put on": "新加上", hops: "逐跳", time: "时间", compared: "比较", "the deciding rule": "起决定作用的规则",
  "Choose where a packet starts and where it goes.": "选择数据包的起点和终点。", "ways it could go; the one shown is in bold": "条可能的路径；粗体为所示路径",
  "as node": "规则所在节点", "has it": "", "share of new connections": "新连接的分配", "by the rules": "规则概率", "counted since shown": "打开后计数", endpoint: "端点",
  own: "本条概率", effective: "有效概率", packets: "包数", "in words": "文字说明", "every rule": "显示原始规则", "no rules": "没有规则", "the rest": "其余",
  "no service has rules": "没有带规则的服务", destination: "目的", via: "下一跳", device: "设备", state: "状态", kind: "类型", mac: "MAC", mtu: "MTU", addresses: "地址",
  route: "路由", subnet: "网段", "public address": "公网地址", backend: "后端", "VTEP MAC": "VTEP MAC", "table of": "所属表", "last change": "最近一次变化", "no change seen yet": "尚无变化",
  added: "新增", removed: "删除", changed: "修改", "this is empty": "空", "before": "之前", rows: "行",
  "No report is open. Start the page with --report FILE; `slipway bench --save FILE` writes one.": "没有打开的报告。用 --report FILE 启动页面；`slipway bench --save FILE` 可生成报告。",
  "higher is better": "越高越好", "lower is better": "越低越好", rounds: "轮", control: "对照", "for comparison": "参照", "load before": "测前负载", "no lab": "没有实验环境",
  "Bars are medians; the line is the interval of the median (of fewer than six rounds: from the lowest to the highest), cut off with an arrow where it is long; × is the ratio to the control in the same rounds, ≈ if they leave open which is larger.":
    "条形为中位数；细线为中位数的置信区间（少于六轮时为最低到最高），过长则以箭头截断；× 为同一轮中与对照之比，≈ 表示尚不能判断谁更大。",
  lesson: "课程", drill: "排障练习", start: "开始", check: "检查", hint: "提示", solution: "答案", reset: "重置", step: "步骤", run: "运行", minutes: "分钟", level: "难度",
  "The page may only look: start it with --allow-change to do this.": "页面为只读：用 --allow-change 启动才能执行。", "not started": "未开始", running: "进行中", passed: "通过", failed: "未通过",
  "want": "应为", "got": "实际", "all lessons": "全部课程", "show beside": "并排显示", close: "关闭", "working…": "进行中…", "next step": "下一步",
  "views": "视图", "zoom, fit": "缩放、适应", "next, previous node": "下一个、上一个节点", "clear the selection": "取消选择", "find a place": "查找",
  "light or dark": "明暗切换", "larger text, for a projector": "大字号（投影）", "English or Chinese": "中英文切换", "play or pause": "播放或暂停", "hop by hop": "逐跳",
  "first, last hop": "第一跳、最后一跳", "show or hide predicted, observed, reply": "显示或隐藏预测、观察、回程", "this help": "本帮助", "lesson beside the view": "课程并排显示",
  "touched by the last change": "被最近一次变化触及", "not as it should be": "不正常", "pods of the lab itself": "实验室自身的 Pod", "switch of the rack": "机架交换机", "outside the cluster": "集群外",
  "drift from what should be": "与期望的偏差", "compare with what should be": "与期望状态比较", "nothing differs": "没有偏差", more: "更多",
};

let lang: "en" | "zh" = "en";

export function setLang(l: "en" | "zh"): void {
  lang = l;
  document.documentElement.lang = l === "zh" ? "zh-CN" : "en";
}

export const getLang = (): "en" | "zh" => lang;

/** t translates a label. */
export const t = (s: string): string => (lang === "zh" ? (zh[s] ?? s) : s);
