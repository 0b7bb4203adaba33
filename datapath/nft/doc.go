// Package nft reads nftables tables as nft prints them in JSON
// (libnftables-json(5)), spells their rules in nft's language as kube-proxy
// does, and takes rules in that spelling apart.
//
// What it does not understand stays in a rule's text as JSON, and makes the rule
// [Rule.Unknown]; nothing is guessed. The package is pure.
package nft
