// autopaho, which speaks MQTT 5 only. Argument: the port. It prints what its user is told of the first attempt to connect.
package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

func main() {
	server, err := url.Parse("mqtt://127.0.0.1:" + os.Args[1])
	if err != nil {
		panic(err)
	}
	told := make(chan string, 1)
	tell := func(text string) {
		select {
		case told <- text:
		default:
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls:                    []*url.URL{server},
		KeepAlive:                     60,
		CleanStartOnInitialConnection: false,
		SessionExpiryInterval:         60,
		OnConnectionUp:                func(*autopaho.ConnectionManager, *paho.Connack) { tell("connected") },
		OnConnectError:                func(err error) { tell("refused: " + err.Error()) },
		ClientConfig:                  paho.ClientConfig{ClientID: "autopaho"},
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(<-told)
}
