// Streams a folder of JPEGs as a camera would, on the generated stubs alone, and prints a JSON line for every outcome.
//
//	cd clients/go && go run ./samples/basic -fps 10 ../../examples/football/clip
//
// Credit is ignored, which the default policy, LATEST, allows: where the server has no time, a newer frame replaces
// the waiting one, and that is told. With -fps 0 each frame waits for the outcome of the last: all are answered.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"log"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "headworks/clients/go/headworks/v1"
)

type object = map[string]any

func main() {
	server := flag.String("server", "127.0.0.1:50051", "address of the server, host:port")
	model := flag.String("model", "players", "model to run")
	fps := flag.Float64("fps", 30, "frames a second; 0: each frame waits for the outcome of the last")
	flag.Parse()
	folder := "../../examples/football/clip"
	if flag.NArg() > 0 {
		folder = flag.Arg(0)
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.jpg")) // in order
	check(err)
	connection, err := grpc.NewClient(*server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	stream, err := pb.NewFrameServiceClient(connection).StreamFrames(context.Background())
	check(err)
	told := make(chan bool, len(files))
	go send(stream, *model, files, *fps, told)

	var labels []string
	var closed *pb.Closed
	out := json.NewEncoder(os.Stdout)
	for {
		response, err := stream.Recv()
		if err == io.EOF { // the status is OK
			break
		}
		check(err)
		for _, event := range response.GetEvents() {
			if opened := event.GetOpened(); opened != nil {
				labels = opened.GetModels()[0].GetLabels()
			} else if event.GetClosed() != nil {
				closed = event.GetClosed()
			} else if outcome := outcomeOf(event, labels); outcome != nil {
				check(out.Encode(outcome))
				told <- true
			}
		}
	}
	// After End the server has read every frame, and each has had its outcome.
	ledger := closed.GetLedger()
	if log.Println(ledger); ledger.GetReceived() != uint64(len(files)) {
		log.Fatalf("%d frames were sent", len(files))
	}
}

func send(stream pb.FrameService_StreamFramesClient, model string, files []string, fps float64, told <-chan bool) {
	open := &pb.Open{Models: []*pb.ModelSelector{{Name: model}}}
	check(stream.Send(&pb.StreamFramesRequest{Message: &pb.StreamFramesRequest_Open{Open: open}}))
	start := time.Now()
	for i, file := range files {
		data, err := os.ReadFile(file)
		check(err)
		if fps > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(float64(i) / fps * float64(time.Second)))))
		} else if i > 0 {
			<-told
		}
		frame := &pb.Frame{FrameId: uint64(i + 1), CaptureTime: timestamppb.Now(), Encoding: pb.Encoding_ENCODING_JPEG, Data: data}
		check(stream.Send(&pb.StreamFramesRequest{Message: &pb.StreamFramesRequest_Frame{Frame: frame}}))
	}
	check(stream.Send(&pb.StreamFramesRequest{Message: &pb.StreamFramesRequest_End{End: &pb.End{}}}))
}

// outcomeOf returns what became of a frame, or nil for Credit, Notice and Pong.
func outcomeOf(event *pb.ServerEvent, labels []string) object {
	if dropped := event.GetDropped(); dropped != nil {
		return object{"frame_id": dropped.GetFirstFrameId(), "outcome": "dropped", "last_frame_id": dropped.GetLastFrameId()}
	}
	if failed := event.GetFrameError(); failed != nil {
		return object{"frame_id": failed.GetFrameId(), "outcome": "error", "detail": failed.GetDetail()}
	}
	result := event.GetResult()
	if result == nil {
		return nil
	}
	boxes := []object{}
	for _, d := range result.GetOutputs()[0].GetDetections().GetDetections() {
		// A float64 prints with all its digits, as it does in the other languages.
		box := object{"x1": float64(d.GetX1()), "y1": float64(d.GetY1()), "x2": float64(d.GetX2()), "y2": float64(d.GetY2())}
		box["score"], box["class_id"], box["label"] = float64(d.GetScore()), d.GetClassId(), labels[d.GetClassId()]
		boxes = append(boxes, box)
	}
	return object{"frame_id": result.GetFrameId(), "outcome": "result", "detections": boxes}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
