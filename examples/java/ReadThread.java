// Reads a thread that a Python graph wrote: the latest state as plain data, and the ids of its checkpoints, page by page.
//
//   java com.example.reader.ReadThread 127.0.0.1:50051 42
package com.example.reader;

import com.example.checkpointd.v1.CheckpointServiceGrpc;
import com.example.checkpointd.v1.CheckpointServiceGrpc.CheckpointServiceBlockingStub;
import com.example.checkpointd.v1.CheckpointTuple;
import com.example.checkpointd.v1.CheckpointView;
import com.example.checkpointd.v1.ListCheckpointsRequest;
import com.example.checkpointd.v1.ListCheckpointsResponse;
import com.example.checkpointd.v1.ShowCheckpointRequest;
import com.example.checkpointd.v1.ThreadServiceGrpc;
import com.example.checkpointd.v1.ThreadServiceGrpc.ThreadServiceBlockingStub;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.Map;
import java.util.concurrent.TimeUnit;

public final class ReadThread {
  private static final int PAGE_SIZE = 2;
  private static final int SECONDS = 30;

  public static void main(String[] arguments) throws InvalidProtocolBufferException {
    ManagedChannel channel = ManagedChannelBuilder.forTarget(arguments[0]).usePlaintext().build();
    try {
      show(channel, arguments[1]);
      list(channel, arguments[1]);
    } catch (StatusRuntimeException error) {
      explain(error);
      System.exit(1);
    } finally {
      channel.shutdownNow();
    }
  }

  /** Prints the values of the latest checkpoint, which the server decodes: no msgpack is needed here. */
  private static void show(ManagedChannel channel, String threadId) {
    ThreadServiceBlockingStub threads =
        ThreadServiceGrpc.newBlockingStub(channel).withDeadlineAfter(SECONDS, TimeUnit.SECONDS);
    ShowCheckpointRequest request = ShowCheckpointRequest.newBuilder().setThreadId(threadId).build();
    JsonObject shown = JsonParser.parseString(threads.showCheckpoint(request).getJson()).getAsJsonObject();
    for (Map.Entry<String, JsonElement> value : shown.getAsJsonObject("values").entrySet()) {
      System.out.println("value " + value.getKey() + ": " + value.getValue());
    }
    for (JsonElement write : shown.getAsJsonArray("pending_writes")) {
      JsonObject waiting = write.getAsJsonObject();
      if (waiting.get("channel").getAsString().equals("__interrupt__")) {
        System.out.println("waits " + waiting.get("value"));
      }
    }
  }

  /** Prints the id of each checkpoint, newest first. */
  private static void list(ManagedChannel channel, String threadId) {
    CheckpointServiceBlockingStub checkpoints =
        CheckpointServiceGrpc.newBlockingStub(channel).withDeadlineAfter(SECONDS, TimeUnit.SECONDS);
    String token = "";
    do {
      ListCheckpointsRequest request =
          ListCheckpointsRequest.newBuilder()
              .setThreadId(threadId)
              .setView(CheckpointView.CHECKPOINT_VIEW_METADATA)
              .setPageSize(PAGE_SIZE)
              .setPageToken(token)
              .build();
      ListCheckpointsResponse page = checkpoints.listCheckpoints(request);
      for (CheckpointTuple found : page.getTuplesList()) {
        System.out.println("checkpoint " + found.getCheckpointId());
      }
      token = page.getNextPageToken();
    } while (!token.isEmpty());
  }

  /** Prints why the server refused a call: the reason, and what it concerns. */
  private static void explain(StatusRuntimeException error) throws InvalidProtocolBufferException {
    com.google.rpc.Status status = StatusProto.fromThrowable(error);
    for (Any detail : status.getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        ErrorInfo info = detail.unpack(ErrorInfo.class);
        System.out.println(info.getReason() + " " + info.getMetadataMap());
        return;
      }
    }
    System.out.println(error.getStatus());
  }
}
