module slipway/components/pause

go 1.26.0
