// Package pages runs the commands that README and docs show.
package pages
