// Command policies enforces a cluster's NetworkPolicies on its one node: whenever pods, namespaces or policies change, all
// of them become one table of the firewall, replaced at once. What is allowed by whom is in rules.go.
//
//	policies KUBECONFIG
//
// It stands in for a kept controller, none of which could be had as a Go module. What it leaves out: a pod is open from its start
// until the API server knows its address; IPv6, which the cluster does not use.
package main

import (
	"context"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	pods, namespaces := factory.Core().V1().Pods(), factory.Core().V1().Namespaces()
	policies := factory.Networking().V1().NetworkPolicies()

	changed := make(chan struct{}, 1) // one is enough: what is read after it is the newest
	note := func(any) {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: note, DeleteFunc: note, UpdateFunc: func(_, now any) { note(now) }}
	for _, informer := range []cache.SharedIndexInformer{pods.Informer(), namespaces.Informer(), policies.Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	note(nil)

	for last := ""; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		var now Cluster
		if now.Pods, err = pods.Lister().List(labels.Everything()); err != nil {
			return err
		}
		if now.Namespaces, err = namespaces.Lister().List(labels.Everything()); err != nil {
			return err
		}
		if now.Policies, err = policies.Lister().List(labels.Everything()); err != nil {
			return err
		}
		table, err := now.Table()
		if err != nil {
			return err
		}
		if table == last {
			continue
		}
		if err := replace(table); err != nil {
			return err
		}
		last = table
	}
}

// replace gives the kernel the table in one transaction, the old one's end included.
func replace(table string) error {
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader("table inet " + tableName + "\ndelete table inet " + tableName + "\n" + table)
	nft.Stderr = os.Stderr
	return nft.Run()
}
