// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

// ReasonPhrase returns the phrase that RFC 9110 section 15 suggests for a
// status, or "" for one that it does not name.
func ReasonPhrase(status int) string {
	if status >= 100 && status < 100+len(reasons)*100 {
		if class := reasons[status/100-1]; status%100 < len(class) {
			return class[status%100]
		}
	}
	return ""
}

var reasons = [5][]string{
	{"Continue", "Switching Protocols", "Processing", "Early Hints"},
	{"OK", "Created", "Accepted", "Non-Authoritative Information", "No Content", "Reset Content",
		"Partial Content", "Multi-Status", "Already Reported"},
	{"Multiple Choices", "Moved Permanently", "Found", "See Other", "Not Modified", "Use Proxy", "",
		"Temporary Redirect", "Permanent Redirect"},
	{"Bad Request", "Unauthorized", "Payment Required", "Forbidden", "Not Found", "Method Not Allowed",
		"Not Acceptable", "Proxy Authentication Required", "Request Timeout", "Conflict", "Gone",
		"Length Required", "Precondition Failed", "Content Too Large", "URI Too Long",
		"Unsupported Media Type", "Range Not Satisfiable", "Expectation Failed", "", "", "",
		"Misdirected Request", "Unprocessable Content", "Locked", "Failed Dependency", "Too Early",
		"Upgrade Required", "", "Precondition Required", "Too Many Requests", "",
		"Request Header Fields Too Large"},
	{"Internal Server Error", "Not Implemented", "Bad Gateway", "Service Unavailable", "Gateway Timeout",
		"HTTP Version Not Supported", "Variant Also Negotiates", "Insufficient Storage", "Loop Detected",
		"", "Not Extended", "Network Authentication Required"},
}
