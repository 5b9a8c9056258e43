// Reads a thread that a LangGraph agent in Python wrote: its latest state, what it waits for, its history.
//
//	go run . HOST:PORT THREAD [CA.pem]
//
// With an authority's certificate it speaks TLS; the token is that of CHECKPOINTD_TOKEN.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "example.com/agents/gen/go/checkpointd/v1"
)

func main() {
	target, thread := os.Args[1], os.Args[2]
	connection, err := grpc.Dial(target, options(os.Args[3:])...)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	checkpoints := pb.NewCheckpointServiceClient(connection)

	// A deadline for each call: the server passes it on to the database.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if token := os.Getenv("CHECKPOINTD_TOKEN"); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}

	latest, err := checkpoints.GetCheckpoint(ctx, &pb.GetCheckpointRequest{ThreadId: thread})
	if err != nil {
		fail(err)
	}
	if latest.Tuple == nil {
		fmt.Println("there is no such thread") // for certain: a failure to ask is an error
		return
	}
	for _, value := range latest.Tuple.Values {
		if value.Channel == "messages" {
			for _, entry := range plain(value.Value).([]interface{}) {
				message := entry.(map[string]interface{})
				fmt.Printf("message %s: %s\n", message["type"], message["content"])
			}
		}
	}
	for _, write := range latest.Tuple.PendingWrites {
		if write.Channel == "__interrupt__" {
			show("waits", plain(write.Value))
		}
	}

	// Newest first, a page a call. The namespace is left out: the root graph.
	request := &pb.ListCheckpointsRequest{
		ThreadId: &thread, View: pb.CheckpointView_CHECKPOINT_VIEW_METADATA, PageSize: 2, MetadataStruct: true,
	}
	for {
		page, err := checkpoints.ListCheckpoints(ctx, request)
		if err != nil {
			fail(err)
		}
		for _, checkpoint := range page.Tuples {
			show("step", checkpoint.Metadata.Struct.AsMap()["step"])
		}
		if page.NextPageToken == "" {
			break
		}
		request.PageToken = page.NextPageToken
	}
}

func options(ca []string) []grpc.DialOption {
	found := []grpc.DialOption{
		// The server takes pings every 10 seconds and more seldom.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 20)),
	}
	if len(ca) == 0 {
		return append(found, grpc.WithInsecure())
	}
	pem, err := os.ReadFile(ca[0])
	if err != nil {
		log.Fatal(err)
	}
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(pem)
	return append(found, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: authorities})))
}

// fail tells the reason of a failed call, and what belongs to it.
func fail(err error) {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			log.Fatalf("%s %v", info.Reason, info.Metadata)
		}
	}
	log.Fatal(err)
}

func show(what string, value interface{}) {
	text, err := json.Marshal(value)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(what, string(text))
}
