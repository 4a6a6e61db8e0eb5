// Paho's client for Go with a persistent session. Arguments and output as `publishing-clients.ts` says.
package main

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

func main() {
	port, id := os.Args[1], os.Args[2]
	qos, messages, windowSize := number(os.Args[3]), number(os.Args[4]), number(os.Args[5])
	options := mqtt.NewClientOptions().AddBroker("tcp://127.0.0.1:" + port).SetClientID(id)
	options.SetProtocolVersion(4).SetCleanSession(false).SetStore(mqtt.NewMemoryStore())
	options.SetAutoReconnect(true).SetMaxReconnectInterval(250 * time.Millisecond)
	client := mqtt.NewClient(options)
	if token := client.Connect(); token.Wait() && token.Error() != nil {
		panic(token.Error())
	}
	window := make(chan struct{}, windowSize)
	var left sync.WaitGroup
	var saying sync.Mutex
	for n := 0; n < messages; n++ {
		window <- struct{}{}
		publish := func() mqtt.Token {
			return client.Publish("devices/"+id+"/telemetry", byte(qos), false, payload(os.Args[6], n))
		}
		token := publish()
		left.Add(1)
		go func() {
			// A write that fails on a cut connection ends the token, although the message stays in the client's store
			// and is sent by the next connection, of which nobody is told. What has a ts can be published again.
			for token.Wait() && token.Error() != nil && os.Args[6] != "none" {
				time.Sleep(20 * time.Millisecond)
				token = publish()
			}
			saying.Lock()
			if token.Error() == nil {
				fmt.Println("acked", n)
			} else {
				fmt.Println("failed", n, token.Error())
			}
			saying.Unlock()
			<-window
			left.Done()
		}()
	}
	left.Wait()
	client.Disconnect(250)
}

func payload(tsFrom string, n int) string {
	if tsFrom == "none" {
		return fmt.Sprintf(`{"n":%d}`, n)
	}
	return fmt.Sprintf(`{"ts":%d,"values":{"n":%d}}`, number(tsFrom)+n, n)
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return value
}
