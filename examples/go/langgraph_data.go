package main

import (
	"encoding/json"
	"fmt"
	"log"
	"reflect"

	"github.com/vmihailenco/msgpack/v5"

	pb "example.com/agents/gen/go/checkpointd/v1"
)

// An extension of msgpack, as LangGraph for Python writes it: see docs/langgraph-data.md.
type extension struct{ value interface{} }

func init() {
	for id := int8(0); id <= 7; id++ {
		id := id
		msgpack.RegisterExtDecoder(id, extension{}, func(decoder *msgpack.Decoder, into reflect.Value, length int) error {
			content := make([]byte, length)
			if err := decoder.ReadFull(content); err != nil {
				return err
			}
			value, err := unpack(content)
			if err != nil {
				return err
			}
			if id <= 5 {
				// [module, class, content, ...]
				parts, ok := value.([]interface{})
				if !ok || len(parts) < 3 {
					return fmt.Errorf("extension %d isn't a list of a module, a class and a content", id)
				}
				value = parts[2]
			}
			into.Set(reflect.ValueOf(extension{value}))
			return nil
		})
	}
}

func unpack(data []byte) (interface{}, error) {
	var found interface{}
	err := msgpack.Unmarshal(data, &found)
	return flat(found), err
}

// flat replaces extensions by what they hold.
func flat(value interface{}) interface{} {
	switch found := value.(type) {
	case extension:
		return flat(found.value)
	case *extension:
		return flat(found.value)
	case []interface{}:
		for at := range found {
			found[at] = flat(found[at])
		}
	case map[string]interface{}:
		for name := range found {
			found[name] = flat(found[name])
		}
	}
	return value
}

// plain returns a stored value as plain data.
func plain(value *pb.TypedValue) interface{} {
	var found interface{}
	var err error
	switch value.Type {
	case "msgpack":
		found, err = unpack(value.Data)
	case "json":
		err = json.Unmarshal(value.Data, &found)
	case "null":
	default:
		found = value.Data // bytes, or another serializer's
	}
	if err != nil {
		log.Fatal(err)
	}
	return found
}
