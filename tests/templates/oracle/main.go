// Answers questions about templates (JSON on standard input) with Go's text/template, and those
// about conversations with Ollama's own package. To build it, in a copy of this folder:
//
//	go mod init oracle && go get github.com/ollama/ollama && go build -o oracle .
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	gotemplate "text/template"

	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/template"
)

type question struct {
	Template string         `json:"template"`
	Data     map[string]any `json:"data,omitempty"`
	Messages []api.Message  `json:"messages,omitempty"`
	Prompt   string         `json:"prompt,omitempty"`
	Suffix   string         `json:"suffix,omitempty"`
	ThinkSet bool           `json:"think_set,omitempty"`
}

func toJSON(value any) string {
	data, _ := json.Marshal(value)
	return string(data)
}

func answer(q question) (text string, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("panic: %v", reason)
		}
	}()
	var written strings.Builder
	if q.Data != nil {
		plain := gotemplate.New("").Option("missingkey=zero").Funcs(gotemplate.FuncMap{"json": toJSON})
		if _, err = plain.Parse(q.Template); err == nil {
			err = plain.Execute(&written, q.Data)
		}
		return written.String(), err
	}
	parsed, err := template.Parse(q.Template)
	if err != nil {
		return "", err
	}
	err = parsed.Execute(&written, template.Values{
		Messages: q.Messages, Prompt: q.Prompt, Suffix: q.Suffix, IsThinkSet: q.ThinkSet,
	})
	return written.String(), err
}

func main() {
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		panic(err)
	}
	answers := []map[string]string{}
	for _, q := range questions {
		text, err := answer(q)
		if err != nil {
			answers = append(answers, map[string]string{"error": err.Error()})
		} else {
			answers = append(answers, map[string]string{"text": text})
		}
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(answers); err != nil {
		panic(err)
	}
}
