module slipway/components/echo

go 1.26.0
