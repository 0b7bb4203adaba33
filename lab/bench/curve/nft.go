package curve

import (
	"errors"
	"slices"
	"strings"

	"slipway/datapath"
	"slipway/topology"
)

// planNFTables renders the table before and what is to be changed as nft -f
// reads them: the lines that kube-proxy, too, hands to nft.
func planNFTables(c *cluster) (change, error) {
	before, after, err := c.rulesOf(topology.ProxyNFTables)
	if err != nil {
		return change{}, err
	}
	if before.NFT == nil || after.NFT == nil {
		return change{}, errors.New("plan rules: there is no nftables table among them")
	}
	return change{all: nftText(before.NFT.Commands()), more: nftText(nftChanges(before.NFT, after.NFT)), rules: before.NFT.Size()}, nil
}

func nftText(commands []string) string {
	var b strings.Builder
	for _, c := range commands {
		b.WriteString(strings.TrimPrefix(c, "nft ") + "\n")
	}
	return b.String()
}

// nftChanges are the commands that lead from one table to one that has more:
// chains that are new or differ, and elements that are new. Nothing is taken away
// that was there.
func nftChanges(have, want *datapath.NFTable) (out []string) {
	chains, sets := map[string]datapath.NFChain{}, map[string]datapath.NFSet{}
	for _, c := range have.Chains {
		chains[c.Name] = c
	}
	for _, s := range have.Sets {
		sets[s.Name] = s
	}
	more := datapath.NFTable{Family: want.Family, Name: want.Name}
	for _, c := range want.Chains {
		is, ok := chains[c.Name]
		if ok && slices.Equal(is.Rules, c.Rules) {
			continue
		}
		if ok {
			out = append(out, "flush chain "+want.Family+" "+want.Name+" "+c.Name)
		}
		more.Chains = append(more.Chains, c)
	}
	for _, s := range want.Sets {
		if is, ok := sets[s.Name]; ok {
			s.Elements = lacking(is.Elements, s.Elements)
			if len(s.Elements) == 0 {
				continue
			}
		}
		more.Sets = append(more.Sets, s)
	}
	return append(out, more.Commands()...)
}

// lacking are the elements that are not there yet.
func lacking(have, want []datapath.NFElement) (out []datapath.NFElement) {
	there := map[datapath.NFElement]bool{}
	for _, e := range have {
		there[e] = true
	}
	for _, e := range want {
		if !there[e] {
			out = append(out, e)
		}
	}
	return out
}
