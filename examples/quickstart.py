from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.graph import START, MessagesState, StateGraph


def answer(state: MessagesState) -> dict[str, list[AIMessage]]:
    return {"messages": [AIMessage(f"This thread has {len(state['messages'])} messages.")]}


builder = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer")
with GrpcSaver.from_conn_string("127.0.0.1:50051") as saver:
    graph = builder.compile(checkpointer=saver)
    result = graph.invoke({"messages": [HumanMessage("hello")]}, {"configurable": {"thread_id": "1"}})
    print(result["messages"][-1].content)
