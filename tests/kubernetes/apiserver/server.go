package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// How long the API server may take until it is ready; machines that build beside a test are slow.
const patience = 3 * time.Minute

type server struct {
	options options.CompletedOptions
	url     string
	ca      string
	token   string
}

// newServer prepares an API server with Kubernetes' own defaults: role-based access, admission with webhooks among it.
func newServer(dir, address, etcd string) (*server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	bound := listener.Addr().(*net.TCPAddr)
	token, err := adminToken(dir)
	if err != nil {
		return nil, err
	}
	key := filepath.Join(dir, "service-accounts.key")
	if err := signingKey(key); err != nil {
		return nil, err
	}
	s := options.NewServerRunOptions()
	flags := pflag.NewFlagSet("apiserver", pflag.ContinueOnError)
	for _, set := range s.Flags().FlagSets {
		flags.AddFlagSet(set)
	}
	arguments := []string{
		"--etcd-servers=http://" + etcd,
		"--bind-address=" + bound.IP.String(),
		"--advertise-address=" + bound.IP.String(),
		"--cert-dir=" + filepath.Join(dir, "certificates"),
		"--authorization-mode=RBAC",
		"--token-auth-file=" + filepath.Join(dir, "tokens.csv"),
		"--service-cluster-ip-range=10.96.0.0/16",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + key,
		"--service-account-signing-key-file=" + key,
		"--allow-privileged=true",
		// Of what Kubernetes has on by itself, the one that waits for controllers that are not here.
		"--disable-admission-plugins=DefaultStorageClass",
	}
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	s.SecureServing.Listener = listener
	s.SecureServing.BindPort = bound.Port
	if err := s.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return nil, err
	}
	completed, err := s.Complete(context.Background())
	if err != nil {
		return nil, err
	}
	if problems := completed.Validate(); len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return &server{
		options: completed,
		url:     "https://" + listener.Addr().String(),
		ca:      completed.SecureServing.ServerCert.CertKey.CertFile,
		token:   token,
	}, nil
}

func (s *server) run(ctx context.Context) error {
	return app.Run(ctx, s.options)
}

// config is for clients that may do everything.
func (s *server) config() *rest.Config {
	return &rest.Config{
		Host:            s.url,
		BearerToken:     s.token,
		TLSClientConfig: rest.TLSClientConfig{CAFile: s.ca},
		QPS:             1000,
		Burst:           1000,
	}
}

// wait returns when the API server is ready.
func (s *server) wait(ctx context.Context, failed <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := kubernetes.NewForConfig(s.config())
	if err != nil {
		return err
	}
	for {
		if err = client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); err == nil {
			return nil
		}
		select {
		case err := <-failed:
			return fmt.Errorf("API server: it has ended: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("API server: it is not ready: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// adminToken gives the token of a user who may do everything, the same at each start in the folder.
func adminToken(dir string) (string, error) {
	file := filepath.Join(dir, "admin.token")
	if token, err := os.ReadFile(file); err == nil {
		return string(token), nil
	}
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	token := hex.EncodeToString(random)
	line := token + ",admin,admin,system:masters\n"
	if err := os.WriteFile(filepath.Join(dir, "tokens.csv"), []byte(line), 0o600); err != nil {
		return "", err
	}
	return token, os.WriteFile(file, []byte(token), 0o600)
}

// signingKey makes the key by which tokens of service accounts are signed, unless it is there.
func signingKey(file string) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	block := pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	return os.WriteFile(file, pem.EncodeToMemory(&block), 0o600)
}
