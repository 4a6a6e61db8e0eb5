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
	store := mqtt.NewMemoryStore()
	options := mqtt.NewClientOptions().AddBroker("tcp://127.0.0.1:" + port).SetClientID(id)
	options.SetProtocolVersion(4).SetCleanSession(false).SetStore(store)
	options.SetAutoReconnect(true).SetMaxReconnectInterval(250 * time.Millisecond)
	client := mqtt.NewClient(options)
	if token := client.Connect(); token.Wait() && token.Error() != nil {
		panic(token.Error())
	}
	window := make(chan struct{}, windowSize)
	var left sync.WaitGroup
	var saying sync.Mutex
	var unsure []int
	for n := 0; n < messages; n++ {
		window <- struct{}{}
		publish := func() mqtt.Token {
			return client.Publish("devices/"+id+"/telemetry", byte(qos), false, payload(os.Args[6], n))
		}
		token := publish()
		left.Add(1)
		go func() {
			// Between two connections the client may not take a message at all.
			for token.Wait() && token.Error() == mqtt.ErrNotConnected {
				time.Sleep(20 * time.Millisecond)
				token = publish()
			}
			saying.Lock()
			if token.Error() == nil {
				fmt.Println("acked", n)
			} else {
				unsure = append(unsure, n)
			}
			saying.Unlock()
			<-window
			left.Done()
		}()
	}
	left.Wait()
	// A token ends with an error when a write fails on a cut connection, and without one when a message is sent again,
	// although both are in the store until they are acknowledged.
	for len(store.All()) > 0 {
		time.Sleep(20 * time.Millisecond)
	}
	for _, n := range unsure {
		fmt.Println("acked", n)
	}
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
