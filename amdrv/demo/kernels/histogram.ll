; bins[value] += occurrences of each byte value: counted in LDS, then added to memory; workgroups of 256, 4 KiB each
declare i32 @llvm.amdgcn.workitem.id.x()
declare i32 @llvm.amdgcn.workgroup.id.x()
declare void @llvm.amdgcn.s.barrier()

@counts = internal addrspace(3) global [256 x i32] poison

define amdgpu_kernel void @histogram(ptr addrspace(1) %bins, ptr addrspace(1) %bytes) #0 {
entry:
  %item = call i32 @llvm.amdgcn.workitem.id.x()
  %group = call i32 @llvm.amdgcn.workgroup.id.x()
  %mine = getelementptr i32, ptr addrspace(3) @counts, i32 %item
  store i32 0, ptr addrspace(3) %mine
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  %first = shl i32 %group, 8
  %place = or disjoint i32 %first, %item
  br label %words

words:
  %word = phi i32 [ 0, %entry ], [ %word.next, %word.done ]
  %quad = shl i32 %place, 2
  %index = add i32 %quad, %word
  %at = getelementptr i32, ptr addrspace(1) %bytes, i32 %index
  %four = load i32, ptr addrspace(1) %at
  br label %digits

digits:
  %rest = phi i32 [ %four, %words ], [ %rest.next, %digits ]
  %left = phi i32 [ 4, %words ], [ %left.next, %digits ]
  %value = and i32 %rest, 255
  %bin = getelementptr i32, ptr addrspace(3) @counts, i32 %value
  %before = atomicrmw add ptr addrspace(3) %bin, i32 1 syncscope("workgroup") monotonic
  %rest.next = lshr i32 %rest, 8
  %left.next = sub i32 %left, 1
  %more.digits = icmp ne i32 %left.next, 0
  br i1 %more.digits, label %digits, label %word.done

word.done:
  %word.next = add i32 %word, 1
  %more.words = icmp ult i32 %word.next, 4
  br i1 %more.words, label %words, label %merge

merge:
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  %count = load i32, ptr addrspace(3) %mine
  %out = getelementptr i32, ptr addrspace(1) %bins, i32 %item
  %old = atomicrmw add ptr addrspace(1) %out, i32 %count syncscope("agent") monotonic
  ret void
}

attributes #0 = { "amdgpu-flat-work-group-size"="256,256" "uniform-work-group-size"="true" }
