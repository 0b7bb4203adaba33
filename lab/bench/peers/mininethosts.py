"""Times Mininet for slipway's bench: hosts on one Linux bridge, up and down.

Runs in namespaces of its own, where Mininet finds nobody else's links.
"""
import json
import sys
import time

from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge
from mininet.topo import SingleSwitchTopo

setLogLevel("critical")
# Mininet would raise limits of the whole machine (mininet.util.fixLimits).
Mininet.inited = True
hosts = int(sys.argv[1])

begin = time.monotonic()
net = Mininet(topo=SingleSwitchTopo(hosts), switch=LinuxBridge, controller=None)
net.start()
up = time.monotonic() - begin

last = net.hosts[-1]
# The bridge may still be bringing up its ports.
lost = last.cmd("ping -c 1 -W 5 %s >/dev/null; echo $?" % net.hosts[0].IP()).strip()

begin = time.monotonic()
net.stop()
print(json.dumps({"up": up, "down": time.monotonic() - begin, "reaches": lost == "0"}))
