// A Kubernetes without nodes, for tests: etcd, the API server and the few controllers that make pods of Deployments, in one
// process that keeps everything in one folder and ends with whoever started it.
//
// Kubernetes and etcd are ordinary modules here; nothing is installed and nothing is left behind but the folder.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// What a test reads from standard output, one line, once everything answers.
type ready struct {
	// Where the API server is.
	URL string `json:"url"`
	// A file with whose certificate it has, PEM.
	CA string `json:"ca"`
	// By which its user may do everything.
	Token string `json:"token"`
}

func main() {
	dir := flag.String("dir", "", "folder for everything that is kept; a second start continues there")
	address := flag.String("address", "127.0.0.1:0", "where the API server listens; port 0 for any")
	flag.Parse()
	if err := run(*dir, *address); err != nil {
		fmt.Fprintln(os.Stderr, "apiserver:", err)
		os.Exit(1)
	}
}

func run(dir, address string) error {
	if dir == "" {
		return errors.New("-dir is missing")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// Whoever started us holds the other end, and the kernel closes it when they end, however they do.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	store, err := startEtcd(filepath.Join(dir, "etcd"))
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	defer store.Close()
	server, err := newServer(dir, address, store.Clients[0].Addr().String())
	if err != nil {
		return fmt.Errorf("API server: %w", err)
	}
	failed := make(chan error, 1)
	go func() { failed <- server.run(ctx) }()
	if err := server.wait(ctx, failed); err != nil {
		return err
	}
	if err := startControllers(ctx, server.config()); err != nil {
		return fmt.Errorf("controllers: %w", err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(ready{URL: server.url, CA: server.ca, Token: server.token}); err != nil {
		return err
	}
	return <-failed
}
