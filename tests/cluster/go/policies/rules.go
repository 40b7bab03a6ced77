package main

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strings"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const tableName = "fleetfn_policies"

// Cluster is all that decides who may speak to whom.
type Cluster struct {
	Pods       []*core.Pod
	Namespaces []*core.Namespace
	Policies   []*networking.NetworkPolicy
}

// Table is the firewall's. A packet between two pods is dropped unless the sender's chain and the receiver's let it
// through; a pod that no policy selects has none. Packets to the node pass the sender's chain; the node reaches all pods,
// as a kubelet must. Services are not seen: kube-proxy has put a pod's or the node's address in their place by then.
func (c Cluster) Table() (string, error) {
	var chains, leave, enter []string
	for _, pod := range c.addressed() {
		for _, way := range []networking.PolicyType{networking.PolicyTypeEgress, networking.PolicyTypeIngress} {
			rules, isolated, err := c.rules(pod, way)
			if err != nil {
				return "", err
			}
			if !isolated {
				continue
			}
			name := strings.ToLower(string(way)) + "_" + strings.ReplaceAll(pod.Status.PodIP, ".", "_")
			rules = append(rules, "drop")
			chains = append(chains, fmt.Sprintf("chain %s { # %s/%s\n%s\n}", name, pod.Namespace, pod.Name, strings.Join(rules, "\n")))
			entry := pod.Status.PodIP + " : jump " + name
			if way == networking.PolicyTypeEgress {
				leave = append(leave, entry)
			} else {
				enter = append(enter, entry)
			}
		}
	}
	pass := []string{"ct state established,related accept"}
	if len(leave) > 0 {
		pass = append(pass, "ip saddr vmap { "+strings.Join(leave, ", ")+" }")
	}
	if len(enter) > 0 {
		pass = append(pass, "ip daddr vmap { "+strings.Join(enter, ", ")+" }")
	}
	chains = append(chains, "chain pods {\n"+strings.Join(pass, "\n")+"\n}")
	for _, hook := range []string{"forward", "input"} {
		chains = append(chains, fmt.Sprintf("chain %s {\ntype filter hook %s priority filter; policy accept;\njump pods\n}", hook, hook))
	}
	return "table inet " + tableName + " {\n" + strings.Join(chains, "\n") + "\n}\n", nil
}

// addressed are the pods that have an address of their own, ordered by it: the newest, where an older one that has gone is
// still listed.
func (c Cluster) addressed() []*core.Pod {
	owners := map[string]*core.Pod{}
	for _, pod := range c.Pods {
		address := pod.Status.PodIP
		ended := pod.Status.Phase == core.PodSucceeded || pod.Status.Phase == core.PodFailed
		if address == "" || pod.Spec.HostNetwork || ended {
			continue
		}
		if other := owners[address]; other == nil || other.CreationTimestamp.Before(&pod.CreationTimestamp) {
			owners[address] = pod
		}
	}
	found := slices.Collect(maps.Values(owners))
	sort.Slice(found, func(i, j int) bool { return found[i].Status.PodIP < found[j].Status.PodIP })
	return found
}

// rules are what a pod's policies allow in one direction; isolated: whether any speaks of it.
func (c Cluster) rules(pod *core.Pod, way networking.PolicyType) (rules []string, isolated bool, err error) {
	for _, policy := range c.Policies {
		if policy.Namespace != pod.Namespace || !slices.Contains(policy.Spec.PolicyTypes, way) {
			continue
		}
		selected, err := matches(&policy.Spec.PodSelector, pod.Labels)
		if err != nil || !selected {
			if err != nil {
				return nil, false, err
			}
			continue
		}
		isolated = true
		var more []string
		if way == networking.PolicyTypeIngress {
			for _, rule := range policy.Spec.Ingress {
				if more, err = c.allow("saddr", policy.Namespace, rule.From, rule.Ports, pod); err != nil {
					return nil, false, err
				}
				rules = append(rules, more...)
			}
		} else {
			for _, rule := range policy.Spec.Egress {
				if more, err = c.allow("daddr", policy.Namespace, rule.To, rule.Ports, nil); err != nil {
					return nil, false, err
				}
				rules = append(rules, more...)
			}
		}
	}
	sort.Strings(rules)
	return slices.Compact(rules), isolated, nil
}

// allow is one rule of a policy. receiver: the pod whose named ports are meant; nil where that is the peer.
func (c Cluster) allow(
	side, namespace string, peers []networking.NetworkPolicyPeer, ports []networking.NetworkPolicyPort, receiver *core.Pod,
) ([]string, error) {
	var rules []string
	if len(peers) == 0 {
		peers = []networking.NetworkPolicyPeer{{IPBlock: &networking.IPBlock{CIDR: "0.0.0.0/0"}}}
	}
	for _, peer := range peers {
		if peer.IPBlock != nil {
			if prefix, err := netip.ParsePrefix(peer.IPBlock.CIDR); err != nil || !prefix.Addr().Is4() {
				continue
			}
			from := "ip " + side + " " + peer.IPBlock.CIDR
			if len(peer.IPBlock.Except) > 0 {
				from += " ip " + side + " != { " + strings.Join(peer.IPBlock.Except, ", ") + " }"
			}
			rules = append(rules, each(from, ports, receiver)...)
			continue
		}
		pods, err := c.peers(namespace, peer)
		if err != nil {
			return nil, err
		}
		for _, pod := range pods {
			named := receiver
			if named == nil {
				named = pod
			}
			rules = append(rules, each("ip "+side+" "+pod.Status.PodIP, ports, named)...)
		}
	}
	return rules, nil
}

// peers are the pods that selectors name.
func (c Cluster) peers(namespace string, peer networking.NetworkPolicyPeer) ([]*core.Pod, error) {
	inside := map[string]bool{namespace: peer.NamespaceSelector == nil}
	if peer.NamespaceSelector != nil {
		for _, each := range c.Namespaces {
			matched, err := matches(peer.NamespaceSelector, each.Labels)
			if err != nil {
				return nil, err
			}
			inside[each.Name] = matched
		}
	}
	var found []*core.Pod
	for _, pod := range c.addressed() {
		matched := true
		if peer.PodSelector != nil {
			var err error
			if matched, err = matches(peer.PodSelector, pod.Labels); err != nil {
				return nil, err
			}
		}
		if matched && inside[pod.Namespace] {
			found = append(found, pod)
		}
	}
	return found, nil
}

// each is a rule per port, or one where all are meant.
func each(from string, ports []networking.NetworkPolicyPort, receiver *core.Pod) []string {
	if len(ports) == 0 {
		return []string{from + " return"}
	}
	var rules []string
	for _, port := range ports {
		protocol := core.ProtocolTCP
		if port.Protocol != nil {
			protocol = *port.Protocol
		}
		rule := from + " meta l4proto " + strings.ToLower(string(protocol))
		if port.Port != nil {
			number := numberOf(*port.Port, protocol, receiver)
			if number == 0 {
				continue // a name that the pod does not have
			}
			rule += fmt.Sprintf(" th dport %d", number)
			if port.EndPort != nil {
				rule += fmt.Sprintf("-%d", *port.EndPort)
			}
		}
		rules = append(rules, rule+" return")
	}
	return rules
}

func numberOf(port intstr.IntOrString, protocol core.Protocol, receiver *core.Pod) int32 {
	if port.Type == intstr.Int {
		return port.IntVal
	}
	if receiver == nil {
		return 0
	}
	for _, container := range slices.Concat(receiver.Spec.InitContainers, receiver.Spec.Containers) {
		for _, offered := range container.Ports {
			if offered.Name == port.StrVal && (offered.Protocol == protocol || offered.Protocol == "") {
				return offered.ContainerPort
			}
		}
	}
	return 0
}

func matches(selector *meta.LabelSelector, of map[string]string) (bool, error) {
	parsed, err := meta.LabelSelectorAsSelector(selector)
	if err != nil {
		return false, err
	}
	return parsed.Matches(labels.Set(of)), nil
}
