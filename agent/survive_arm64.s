#include "textflag.h"

// filterSent is called by the kernel: R0 signal, R1 siginfo_t, R2 ucontext_t.
TEXT ·filterSent(SB),NOSPLIT|NOFRAME,$0
	MOVW	8(R1), R3 // si_code
	CMPW	$0, R3
	BLE	sent
	MOVD	·runtimeHandler(SB), R3
	JMP	(R3)
sent:
	RET

// func filterSentAddress() uintptr
TEXT ·filterSentAddress(SB),NOSPLIT,$0-8
	MOVD	$·filterSent(SB), R0
	MOVD	R0, ret+0(FP)
	RET
